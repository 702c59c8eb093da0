/* Product of two values; each number of b meets `each` neighbours of a; y may be a. */
static void multiply(const int8_t *a, const int8_t *b, int8_t *y, int32_t count,
                     int32_t each, int a_zero, int b_zero, int32_t mantissa, int shift,
                     int zero, int low, int high)
{
    int32_t i;
    for (i = 0; i < count; i++) {
        const int32_t product = (int32_t)(a[i] - a_zero) * (b[i / each] - b_zero);
        y[i] = rescaled((int64_t)product * mantissa, shift, zero, low, high);
    }
}
