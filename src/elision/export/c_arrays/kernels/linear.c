/* Linear layer of one vector; weights (columns, inner). */
static void linear(const int8_t *x, int8_t *y, const int8_t *weight, const int32_t *bias,
                   const int32_t *mantissa, const uint8_t *shift, int inner, int columns,
                   int input_zero, int zero, int low, int high)
{
    int k, i;
    for (k = 0; k < columns; k++) {
        const int8_t *w = weight + (int32_t)k * inner;
        int32_t sum = bias[k];
        for (i = 0; i < inner; i++)
            sum += w[i] * (x[i] - input_zero);
        y[k] = rescaled((int64_t)sum * mantissa[k], shift[k], zero, low, high);
    }
}
