"""Run the sweep that the README shows, and take the picture of its report: bench/report.png.

python bench/report.py FOLDER   # some 3 minutes; the folder keeps the sweep; needs selenium, chromium and chromedriver
"""

import shutil
import subprocess
import sys
from pathlib import Path

from selenium import webdriver

HERE = Path(__file__).parent
GRID = (
    "--dataset mnist --data-dir bench/mnist --input-dropout 0.1 --epochs 10 --retrain-epochs 5 --rounds 12 "
    "--rule percentile,std,sparsity --q 30 --quality 0.6 --sparsity 0.985 --seeds 0:2:3"
)
WIDTH = 1080


def main():
    (folder,) = sys.argv[1:]
    line = [sys.executable, "-m", "fastprune.sweep", *GRID.split(), "--out", folder]
    subprocess.run(line, cwd=HERE.parent, check=True)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    quiet = ("background-networking", "component-update", "sync", "quic", "gpu")
    for flag in ("headless=new", "no-sandbox", "hide-scrollbars", *(f"disable-{name}" for name in quiet)):
        options.add_argument(f"--{flag}")
    with webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver"))) as browser:
        size = {"width": WIDTH, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get((Path(folder).resolve() / "report.html").as_uri())
        end = browser.execute_script("return document.querySelectorAll('h3')[1].offsetTop")  # the rounds' table
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size | {"height": end})
        browser.save_screenshot(str(HERE / "report.png"))


if __name__ == "__main__":
    main()
