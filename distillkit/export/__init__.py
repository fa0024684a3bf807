"""The student for deployment elsewhere: as networks of other runtimes, with tables and a driver."""
