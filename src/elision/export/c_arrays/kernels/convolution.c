/* Convolution, (channels, height, width) to (kernels, made_height, made_width); weights
   (kernels, channels / groups, rows, columns). What lies outside the image adds nothing,
   for its code is the zero point. */
typedef struct {
    int channels, height, width, kernels, made_height, made_width, rows, columns;
    int stride_y, stride_x, top, left, dilation_y, dilation_x, groups;
    int input_zero, zero, low, high;
} convolution_shape;

static void convolution(const int8_t *x, int8_t *y, const int8_t *weight,
                        const int32_t *bias, const int32_t *mantissa,
                        const uint8_t *shift, const convolution_shape *s)
{
    const int depth = s->channels / s->groups, each = s->kernels / s->groups;
    const int taps = depth * s->rows * s->columns;
    int k, p, q, c, r, t;
    for (k = 0; k < s->kernels; k++) {
        const int8_t *image = x + (int32_t)(k / each) * depth * s->height * s->width;
        for (p = 0; p < s->made_height; p++) {
            for (q = 0; q < s->made_width; q++) {
                const int8_t *w = weight + (int32_t)k * taps;
                int32_t sum = bias[k];
                for (c = 0; c < depth; c++) {
                    for (r = 0; r < s->rows; r++, w += s->columns) {
                        const int i = p * s->stride_y - s->top + r * s->dilation_y;
                        const int8_t *row;
                        if (i < 0 || i >= s->height)
                            continue;
                        row = image + ((int32_t)c * s->height + i) * s->width;
                        for (t = 0; t < s->columns; t++) {
                            const int j = q * s->stride_x - s->left + t * s->dilation_x;
                            if (j >= 0 && j < s->width)
                                sum += w[t] * (row[j] - s->input_zero);
                        }
                    }
                }
                *y++ = rescaled((int64_t)sum * mantissa[k], shift[k], s->zero, s->low,
                                s->high);
            }
        }
    }
}
