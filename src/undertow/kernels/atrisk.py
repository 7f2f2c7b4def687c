"""Who would be called at which prices, while nobody sells anything.

Prices are given as rows of NOWs, worked out once for all accounts: row g is one point, of a line of
ever larger moves or of a surface. Along a line health is concave, so an account that is called
stays called, and the first point is found by halving.
"""

from undertow.kernels import njit
from undertow.kernels.accounts import account_health
from undertow.kernels.lent import lend


@njit(cache=True, error_model="numpy", nogil=True)
def first_called(accounts, points, case, state, first):
    """Write the first row of `points` at which each of `accounts` is called, or how many there are.

    Of plain accounts; what a portfolio grid asks is worked out point by point, by `called_at`.
    """
    case, state = lend(case), lend(state)
    hold, touched = case.hold, state.touched
    insts, brackets, grids, losses = case.insts, case.brackets, case.grids, state.losses
    last = points.shape[0]
    for n in range(accounts.size):
        a = accounts[n]
        low, high = 0, last  # called at `high` and beyond, never before `low`
        while low < high:
            middle = (low + high) // 2
            cover, asked, _ = account_health(
                a, hold, touched, points[middle], insts, brackets, grids, losses
            )
            if cover < asked:
                high = middle
            else:
                low = middle + 1
        first[n] = high


@njit(cache=True, error_model="numpy", nogil=True)
def called_at(accounts, case, state, called):
    """Write 1 for each of `accounts` that is called at the seen prices of `state`."""
    case, state = lend(case), lend(state)
    for n in range(accounts.size):
        cover, asked, _ = account_health(
            accounts[n], case.hold, state.touched, state.now, case.insts, case.brackets,
            case.grids, state.losses,
        )  # fmt: skip
        called[n] = 1 if cover < asked else 0


@njit(cache=True, error_model="numpy", nogil=True)
def add_called(accounts, group, weight, case, state, total):
    """Add the weights (accounts, kinds) of those called at the seen prices to `total` by group.

    Returns how many they are.
    """
    case, state = lend(case), lend(state)
    count = 0
    for n in range(accounts.size):
        a = accounts[n]
        cover, asked, _ = account_health(
            a, case.hold, state.touched, state.now, case.insts, case.brackets, case.grids,
            state.losses,
        )  # fmt: skip
        if cover < asked:
            count += 1
            for kind in range(weight.shape[1]):
                total[group[a], kind] += weight[a, kind]
    return count
