/* A program that predicts, for its size: the difference to one without PREDICT is what a prediction costs. */
#include HEADER

extern char stack;
void start(void);

__attribute__((section(".vectors"), used)) static const void *const vectors[2] = {&stack, (const void *)start};

volatile int result;
extern FEATURE sample[INPUTS];

void start(void)
{
#ifdef PREDICT
    result = PREDICT(sample);
#endif
    for (;;)
        ;
}
