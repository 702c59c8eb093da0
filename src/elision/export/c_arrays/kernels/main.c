/* Inference of every input on standard input, outputs to standard output: for tests. */
#include <stdio.h>

#include "@HEADER@"

int main(void)
{
    static int8_t input[@NAME@_INPUT_BYTES], output[@NAME@_OUTPUT_BYTES];
    while (fread(input, sizeof input, 1, stdin) == 1) {
        if (@name@_run(input, output) != 0)
            return 1;
        if (fwrite(output, sizeof output, 1, stdout) != 1)
            return 1;
    }
    return 0;
}
