/* Mean of windows without padding, (channels, height, width) to (channels, made_height,
   made_width). */
static void average(const int8_t *x, int8_t *y, int channels, int height, int width,
                    int made_height, int made_width, int rows, int columns, int stride_y,
                    int stride_x, int input_zero, int32_t mantissa, int shift, int zero,
                    int low, int high)
{
    int c, p, q, r, t;
    for (c = 0; c < channels; c++, x += (int32_t)height * width) {
        for (p = 0; p < made_height; p++) {
            for (q = 0; q < made_width; q++) {
                int32_t sum = 0;
                for (r = 0; r < rows; r++) {
                    const int8_t *row =
                        x + (int32_t)(p * stride_y + r) * width + q * stride_x;
                    for (t = 0; t < columns; t++)
                        sum += row[t] - input_zero;
                }
                *y++ = rescaled((int64_t)sum * mantissa, shift, zero, low, high);
            }
        }
    }
}
