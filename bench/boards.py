"""C files on this machine, and on a Cortex-M3 that QEMU emulates: compiled, run, and measured."""

import ctypes
import itertools
import shutil
import subprocess
from pathlib import Path

import numpy as np

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror"]
M3 = ["-mcpu=cortex-m3", "-mthumb", "-Os", "-ffunction-sections", "-fdata-sections", "-nostartfiles"]
_numbers = itertools.count()
FILES = Path(__file__).parent / "cortex_m3"


def has(*programs):
    return all(map(shutil.which, programs))


def run(*command, **options):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}"
    return result


LOOP = """
#include "{header}"
#include <stddef.h>
#include <stdint.h>

typedef {feature} feature;
typedef {number} number;

void many(const feature *x, size_t samples, int *classes, number *logits, float *probabilities);

void many(const feature *x, size_t samples, int *classes, number *logits, float *probabilities)
{{
    size_t i;
    (void)classes, (void)logits, (void)probabilities;
    for (i = 0; i < samples; ++i, x += {inputs}) {{
        {calls}
    }}
}}
"""

# A program that reads samples from its input and writes logits, for sanitizers.
MAIN = """
#include "{header}"
#include <stdint.h>
#include <stdio.h>

int main(void)
{{
    static {feature} x[{inputs}];
    static {number} logits[{outputs}];
    while (fread(x, sizeof x, 1, stdin) == 1) {{
        {name}_logits(x, logits);
        fwrite(logits, sizeof logits, 1, stdout);
    }}
    return 0;
}}
"""


# A program that predicts samples from a file several times, and prints the nanoseconds that one takes.
TIMER = """
#define _POSIX_C_SOURCE 199309L
#include "{header}"
#include <stdint.h>
#include <stdio.h>
#include <time.h>

int main(void)
{{
    static {feature} x[{samples}][{inputs}];
    struct timespec a, b;
    int round, i, classes = 0;
    if (fread(x, sizeof x, 1, stdin) != 1)
        return 1;
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (round = 0; round < 10; ++round)
        for (i = 0; i < {samples}; ++i)
            classes += {name}_predict(x[i]);
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("%.17g", ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / 10 / {samples});
    return classes < 0;
}}
"""


class Library:
    """The functions of a C file, compiled for this machine, for many samples at a time."""

    def __init__(self, file, *, name=None, options=("-O2", *STRICT)):
        name, header = name or file.stem, file.with_suffix(".h").read_text()
        self.integer, self.feature = "int32_t logits" in header, "uint8_t" if "uint8_t x" in header else "float"
        self.inputs, self.outputs = (int(header.split(f"_{what} ")[1].split()[0]) for what in ("INPUTS", "OUTPUTS"))
        self.has = {what: f"{name}_{what}(" in header for what in ("predict", "logits", "probabilities")}
        self.shares = int("probabilities[2]" in header) + self.outputs
        self.words = {
            "name": name,
            "header": file.with_suffix(".h").name,
            "feature": self.feature,
            "number": "int32_t" if self.integer else "float",
            "inputs": self.inputs,
            "outputs": self.outputs,
        }
        calls = {
            "predict": f"if (classes) classes[i] = {name}_predict(x);",
            "logits": f"if (logits) {name}_logits(x, logits + i * {self.outputs});",
            "probabilities": f"if (probabilities) {name}_probabilities(x, probabilities + i * {self.shares});",
        }
        loop, self.file = file.parent / f"{name}_loop.c", file
        loop.write_text(
            LOOP.format(calls="\n        ".join(calls[what] for what in self.has if self.has[what]), **self.words)
        )
        path = file.parent / f"{name}_{next(_numbers)}.so"  # one that is loaded must not change
        run("gcc", *options, "-shared", "-fPIC", file, loop, "-o", path, "-lm")
        self._many = ctypes.CDLL(str(path)).many

    def samples(self, x):
        return np.ascontiguousarray(x, np.uint8 if self.feature == "uint8_t" else np.float32)

    def __call__(self, what, x):
        x = self.samples(x)
        kinds = {"predict": (np.int32, ()), "logits": (np.int32 if self.integer else np.float32, (self.outputs,))}
        kind, shape = kinds.get(what, (np.float32, (self.shares,)))
        out = np.empty((len(x), *shape), kind)
        assert self.has[what]
        pointers = [out.ctypes.data_as(ctypes.c_void_p) if what == one else None for one in self.has]
        self._many(x.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(len(x)), *pointers)
        return out

    def timer(self, x, *options):
        """A function that returns the seconds a sample takes in a program of its own, one sample a call."""
        main, samples = self.file.parent / f"{self.file.stem}_timer.c", self.samples(x).tobytes()
        main.write_text(TIMER.format(samples=len(x), **self.words))
        program = main.with_suffix("")
        run("gcc", "-std=c99", "-O2", *options, self.file, main, "-o", program, "-lm")

        def seconds():
            result = subprocess.run([program], input=samples, capture_output=True, check=True)
            return float(result.stdout) / 1e9

        return seconds

    def sanitized(self, x):
        """The logits, from a program that stops at undefined behavior or a wrong address."""
        main = self.file.parent / "main.c"
        main.write_text(MAIN.format(**self.words))
        options = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
        run("gcc", *STRICT, *options, self.file, main, "-o", main.with_suffix(""), "-lm")
        result = subprocess.run(
            [main.with_suffix("")], input=self.samples(x).tobytes(), capture_output=True, check=False
        )
        assert result.returncode == 0, result.stderr.decode()
        kind = np.int32 if self.integer else np.float32
        return np.frombuffer(result.stdout, kind).reshape(len(x), self.outputs)


def _m3(file, program, output, *options):
    """Compile a program of `FILES` together with a C file."""
    header = file.with_suffix(".h").read_text()
    feature = "uint8_t" if "uint8_t x" in header else "float"
    inputs = int(header.split("_INPUTS ")[1].split()[0])
    macros = [f'-DHEADER="{file.with_suffix(".h").name}"', f"-DFEATURE={feature}", f"-DINPUTS={inputs}"]
    link = ["-include", "stdint.h", "-I", file.parent, "-T", FILES / "link.ld", "-Wl,--gc-sections"]
    run("arm-none-eabi-gcc", "-std=gnu99", *M3, *macros, *link, *options, FILES / program, file, "-lm", "-o", output)


def on_cortex_m3(file, samples, *options):
    """Return the classes that a Cortex-M3 predicts, and the instructions that one prediction takes."""
    folder = file.parent
    _m3(file, "main.c", folder / "main.elf", f"-DNAME={file.stem}", *options)
    samples.tofile(folder / "samples")
    (folder / "classes").unlink(missing_ok=True)
    command = ["qemu-system-arm", "-M", "mps2-an385", "-icount", "shift=0", "-display", "none", "-serial", "none"]
    semihosting = ["-monitor", "none", "-semihosting-config", "enable=on,target=native"]
    result = run(*command, *semihosting, "-kernel", folder / "main.elf", cwd=folder, timeout=600)
    return np.fromfile(folder / "classes", np.uint8), int(result.stderr)


def flash_of(file, *options):
    """Return the bytes of flash that predicting takes on a Cortex-M3: code, constants and what they need of libgcc."""
    sizes = []
    for call in ([], [f"-DPREDICT={file.stem}_predict", "-Wl,--defsym=sample=0x20000000"]):
        _m3(file, "size.c", file.parent / "size.elf", *call, *options)
        text, data, _ = run("arm-none-eabi-size", file.parent / "size.elf").stdout.splitlines()[1].split()[:3]
        sizes.append(int(text) + int(data))
    return sizes[1] - sizes[0]


def ram_of(file, *options):
    """Return the bytes of stack and of static variables that predicting takes on a Cortex-M3."""
    unit = file.parent / f"{file.stem}.o"
    run("arm-none-eabi-gcc", *M3[:3], "-fstack-usage", *options, "-c", file, "-o", unit)
    lines = [line.split("\t") for line in unit.with_suffix(".su").read_text().splitlines()]
    frames = {line[0].rpartition(":")[2]: int(line[1]) for line in lines}
    layers = [size for name, size in frames.items() if name.startswith("layer_")]  # which follow one another
    _, data, bss = map(int, run("arm-none-eabi-size", unit).stdout.splitlines()[1].split()[:3])
    return sum(frames.values()) - sum(layers) + max(layers, default=0) + data + bss
