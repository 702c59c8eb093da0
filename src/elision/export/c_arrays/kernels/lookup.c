/* A function of one value, as a table of 256 codes; y may be x. */
static void lookup(const int8_t *x, int8_t *y, int32_t count, const int8_t *table)
{
    int32_t i;
    for (i = 0; i < count; i++)
        y[i] = table[x[i] + 128];
}
