"""Many runs of one design: a teacher and variants of its student at several lambdas and seeds."""
