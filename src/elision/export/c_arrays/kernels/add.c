/* Sum of two values of one shape; y may be a or b. */
static void add(const int8_t *a, const int8_t *b, int8_t *y, int32_t count, int a_zero,
                int b_zero, int32_t a_mantissa, int32_t b_mantissa, int shift, int zero,
                int low, int high)
{
    int32_t i;
    for (i = 0; i < count; i++) {
        const int64_t sum = (int64_t)(a[i] - a_zero) * a_mantissa +
                            (int64_t)(b[i] - b_zero) * b_mantissa;
        y[i] = rescaled(sum, shift, zero, low, high);
    }
}
