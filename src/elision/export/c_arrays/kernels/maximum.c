/* Largest code of windows, (channels, height, width) to (channels, made_height,
   made_width); outside the image lies the lowest code. */
static void maximum(const int8_t *x, int8_t *y, int channels, int height, int width,
                    int made_height, int made_width, int rows, int columns, int stride_y,
                    int stride_x, int top, int left, int dilation_y, int dilation_x)
{
    int c, p, q, r, t;
    for (c = 0; c < channels; c++, x += (int32_t)height * width) {
        for (p = 0; p < made_height; p++) {
            for (q = 0; q < made_width; q++) {
                int8_t most = -128;
                for (r = 0; r < rows; r++) {
                    const int i = p * stride_y - top + r * dilation_y;
                    for (t = 0; t < columns; t++) {
                        const int j = q * stride_x - left + t * dilation_x;
                        if (i >= 0 && i < height && j >= 0 && j < width &&
                            x[(int32_t)i * width + j] > most)
                            most = x[(int32_t)i * width + j];
                    }
                }
                *y++ = most;
            }
        }
    }
}
