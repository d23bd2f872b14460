/*
 * Reads samples from the file "samples" of the host, writes their classes to "classes" (a byte each), and prints the
 * instructions that a prediction takes, if QEMU runs with -icount shift=0: then an instruction takes 1 ns, and SysTick
 * counts 40 of them. Files are reached by semihosting.
 */
#include HEADER

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define PREDICT JOIN(NAME, _predict)

extern char stack;
void start(void);

__attribute__((section(".vectors"), used)) static const void *const vectors[2] = {&stack, (const void *)start};

#define SYSTICK ((volatile uint32_t *)0xE000E010)

static int32_t host(int32_t operation, const void *arguments)
{
    register int32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static int32_t open_file(const char *name, uint32_t length, uint32_t mode)
{
    const uint32_t arguments[3] = {(uint32_t)name, mode, length};
    return host(1, arguments);
}

static void print(uint32_t number)
{
    static char text[12];
    char *digit = text + 11;
    do
        *--digit = (char)('0' + number % 10);
    while (number /= 10);
    host(4, digit);
}

static FEATURE sample[INPUTS];
static uint8_t result;

void start(void)
{
    uint64_t ticks = 0;
    uint32_t samples = 0;
    const int32_t in = open_file("samples", 7, 1), out = open_file("classes", 7, 5);
    const uint32_t from[3] = {(uint32_t)in, (uint32_t)sample, sizeof sample};
    const uint32_t to[3] = {(uint32_t)out, (uint32_t)&result, 1};
    SYSTICK[1] = 0xFFFFFF;
    SYSTICK[0] = 5;
    while (host(6, from) == 0) {
        uint32_t before;
        SYSTICK[2] = 0;
        before = SYSTICK[2];
        result = (uint8_t)PREDICT(sample);
        ticks += (before - SYSTICK[2]) & 0xFFFFFF;
        ++samples;
        host(5, to);
    }
    print((uint32_t)(ticks * 40 / samples));
    host(0x18, (const void *)0x20026);
    for (;;)
        ;
}
