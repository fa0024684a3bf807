"""What plugin authors test with: each check builds a component, runs it, and raises what is wrong with it."""

from .kit import check_loss_term as check_loss_term
from .kit import check_schedule as check_schedule
from .kit import check_taps as check_taps
from .objectives import check_objective as check_objective
from .pair_check import check_pair as check_pair
from .steps import check_optimizer as check_optimizer
from .steps import check_rate_schedule as check_rate_schedule
from .steps import check_step_extension as check_step_extension
