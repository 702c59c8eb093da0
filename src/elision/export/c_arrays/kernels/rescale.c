/* A sum times mantissa / 2^shift, halves up, moved to a zero point and clamped. The shift
   of a negative number is written by complements, whose result C99 defines. */
static int8_t rescaled(int64_t product, int shift, int zero, int low, int high)
{
    int64_t value = product + ((int64_t)1 << (shift - 1));
    value = value < 0 ? ~(~value >> shift) : value >> shift;
    value += zero;
    return (int8_t)(value < low ? low : value > high ? high : value);
}
