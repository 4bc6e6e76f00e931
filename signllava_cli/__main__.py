"""`python -m signllava_cli`: what `accelerate launch -m` starts."""

from signllava_cli.cli.main import run

if __name__ == "__main__":
    run()
