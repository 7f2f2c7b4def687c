"""Networks with known sums, moved from one to the next four entries at a time."""

from undertow.kernels import njit


@njit(cache=True, error_model="numpy", nogil=True)
def wander(matrix, row, other_row, column, other_column, drawn, gone):
    """Move `matrix` by draws that keep the sums of its rows and columns, its zero diagonal too.

    A move adds to two entries at opposite corners of a rectangle what it takes from the other two:
    anywhere up to where an entry is gone, or to just there. `gone` is how likely an entry is not
    there, against a unit of room in which it is. Corners and numbers (0 to 1) are given, one a
    move. Two entries that are both gone come back one by one, by other moves.
    """
    for n in range(drawn.size):
        i, k, j, m = row[n], other_row[n], column[n], other_column[n]
        if i in (k, j, m) or j in (k, m) or k == m:
            continue
        down, up = min(matrix[i, j], matrix[k, m]), min(matrix[i, m], matrix[k, j])
        if max(matrix[i, j], matrix[k, m]) <= 0.0 or max(matrix[i, m], matrix[k, j]) <= 0.0:
            continue
        if down + up <= 0.0:
            continue
        at = drawn[n] * (down + up + 2.0 * gone)
        step = -down if at < gone else up if at < 2.0 * gone else at - 2.0 * gone - down
        matrix[i, j] += step
        matrix[k, m] += step
        matrix[i, m] -= step
        matrix[k, j] -= step
