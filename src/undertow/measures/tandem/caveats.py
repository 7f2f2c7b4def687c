"""What misleads in more than one measure of tandem, said once."""

ONE_BASKET = (
    "A node answers to one basket at every step, what it holds today unless others were given: "
    "prices of what it held before and holds no longer are not taken out."
)
