/* One operand of a concatenation: blocks of `block` codes, `apart` codes from one to the
   next in y. */
static void concatenate(const int8_t *x, int8_t *y, int count, int32_t block, int32_t apart)
{
    int n;
    for (n = 0; n < count; n++, x += block, y += apart)
        memcpy(y, x, (size_t)block);
}
