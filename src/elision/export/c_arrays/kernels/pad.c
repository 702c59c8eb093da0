/* A border of zeros, whose code is the zero point, around (channels, height, width). */
static void pad(const int8_t *x, int8_t *y, int channels, int height, int width,
                int before_c, int before_y, int before_x, int made_channels,
                int made_height, int made_width, int zero)
{
    int c, i;
    memset(y, zero, (size_t)((int32_t)made_channels * made_height * made_width));
    for (c = 0; c < channels; c++) {
        for (i = 0; i < height; i++, x += width) {
            const int32_t row = (int32_t)(c + before_c) * made_height + i + before_y;
            memcpy(y + row * made_width + before_x, x, (size_t)width);
        }
    }
}
