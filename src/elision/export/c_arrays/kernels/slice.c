/* Every so many-th index of (channels, height, width), from a first one. */
static void slice(const int8_t *x, int8_t *y, int height, int width, int start_c,
                  int start_y, int start_x, int step_c, int step_y, int step_x,
                  int made_channels, int made_height, int made_width)
{
    int c, i, j;
    for (c = 0; c < made_channels; c++) {
        for (i = 0; i < made_height; i++) {
            const int32_t row = (int32_t)(start_c + c * step_c) * height + start_y + i * step_y;
            for (j = 0; j < made_width; j++)
                *y++ = x[row * width + start_x + j * step_x];
        }
    }
}
