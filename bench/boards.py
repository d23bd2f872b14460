"""C files on this machine, and on a Cortex-M3 that QEMU emulates: compiled, run, and measured."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror"]
M3 = ["-mcpu=cortex-m3", "-mthumb", "-Os", "-ffunction-sections", "-fdata-sections", "-nostartfiles"]
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

void many(const {feature} *x, size_t samples, int *classes, {number} *logits, float *probabilities);

void many(const {feature} *x, size_t samples, int *classes, {number} *logits, float *probabilities)
{{
    for (size_t i = 0; i < samples; ++i, x += {inputs}) {{
        if (classes)
            classes[i] = {predict};
        if (logits)
            {logits};
        if (probabilities)
            {probabilities};
    }}
}}
"""


class Library:
    """The functions of a C file, compiled for this machine, for many samples at a time."""

    def __init__(self, file, *, name=None, options=("-O2",)):
        name, header = name or file.stem, file.with_suffix(".h").read_text()
        self.integer, self.feature = "int32_t logits" in header, "uint8_t" if "uint8_t x" in header else "float"
        self.inputs, self.outputs = (int(header.split(f"_{what} ")[1].split()[0]) for what in ("INPUTS", "OUTPUTS"))
        self.has = {what: f"{name}_{what}(" in header for what in ("predict", "logits", "probabilities")}
        self.shares = int("probabilities[2]" in header) + self.outputs
        number = "int32_t" if self.integer else "float"
        loop = LOOP.format(
            header=file.with_suffix(".h").name,
            feature=self.feature,
            number=number,
            inputs=self.inputs,
            predict=f"{name}_predict(x)" if self.has["predict"] else "0",
            logits=f"{name}_logits(x, logits + i * {self.outputs})" if self.has["logits"] else "",
            probabilities=(
                f"{name}_probabilities(x, probabilities + i * {self.shares})" if self.has["probabilities"] else ""
            ),
        )
        (file.parent / f"{name}_loop.c").write_text(loop)
        self.path = file.parent / f"{name}.so"
        self.path.unlink(missing_ok=True)
        run("gcc", *STRICT, *options, "-shared", "-fPIC", file, file.parent / f"{name}_loop.c", "-o", self.path, "-lm")
        self._many = ctypes.CDLL(str(self.path)).many

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


def _m3(file, program, output, *options):
    """Compile a program of `FILES` together with a C file."""
    header = file.with_suffix(".h").read_text()
    feature = "uint8_t" if "uint8_t x" in header else "float"
    inputs = int(header.split("_INPUTS ")[1].split()[0])
    macros = [f'-DHEADER="{file.with_suffix(".h").name}"', f"-DFEATURE={feature}", f"-DINPUTS={inputs}"]
    link = ["-include", "stdint.h", "-I", file.parent, "-T", FILES / "link.ld", "-Wl,--gc-sections"]
    run("arm-none-eabi-gcc", "-std=gnu99", *M3, *macros, *link, *options, FILES / program, file, "-lm", "-o", output)


def on_cortex_m3(file, samples, name=None):
    """Return the classes that a Cortex-M3 predicts, and the instructions that one prediction takes."""
    folder, name = file.parent, name or file.stem
    _m3(file, "main.c", folder / "main.elf", f"-DNAME={name}")
    samples.tofile(folder / "samples")
    (folder / "classes").unlink(missing_ok=True)
    command = "qemu-system-arm -M mps2-an385 -icount shift=0 -display none -monitor none -serial none".split()
    semihosting = ["-semihosting-config", "enable=on,target=native"]
    result = run(*command, *semihosting, "-kernel", folder / "main.elf", cwd=folder, timeout=600)
    return np.fromfile(folder / "classes", np.uint8), int(result.stderr)


def flash_of(file, call=None):
    """Return the bytes of flash that predicting takes on a Cortex-M3: code, constants and what they need of libgcc."""
    sizes = []
    calls = ([], [f"-DPREDICT={call or file.stem + '_predict'}", "-Wl,--defsym=sample=0x20000000"])
    for options in calls:
        _m3(file, "size.c", file.parent / "size.elf", *options)
        text, data, _ = run("arm-none-eabi-size", file.parent / "size.elf").stdout.splitlines()[1].split()[:3]
        sizes.append(int(text) + int(data))
    return sizes[1] - sizes[0]


def ram_of(file):
    """Return the bytes of stack and of static variables that predicting takes on a Cortex-M3."""
    unit = file.parent / f"{file.stem}.o"
    run("arm-none-eabi-gcc", "-std=c99", *M3[:3], "-fstack-usage", "-c", file, "-o", unit)
    frames = [line.split("\t") for line in unit.with_suffix(".su").read_text().splitlines()]
    _, data, bss = map(int, run("arm-none-eabi-size", unit).stdout.splitlines()[1].split()[:3])
    return sum(int(size) for _, size, _ in frames) + data + bss
