# docker build --tag signllava .                                     torch for the CPU
# docker build --tag signllava:cuda --build-arg DEVICE=cuda .        torch for NVIDIA GPUs
# docker run --rm --volume "$PWD:/work" signllava demo --llm tiny    more in docs/install.md
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY signllava_cli signllava_cli
COPY recipes recipes
COPY accelerate_configs accelerate_configs
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:${PYTHON}-slim-bookworm
# Triton and torch.compile call a C++ compiler.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
ARG DEVICE=cpu
ARG TORCH=2.13.0
ARG EXTRAS=plot,serve
COPY constraints.txt /constraints.txt
COPY --from=wheel /dist /dist
# PyPI's torch is that for CUDA, and brings CUDA's libraries; the machine needs only the driver.
RUN case "${DEVICE}" in \
        cpu) index=https://download.pytorch.org/whl/cpu ;; \
        cuda) index=https://pypi.org/simple ;; \
        *) echo "DEVICE=${DEVICE}: expected cpu or cuda" >&2; exit 1 ;; \
    esac \
    && pip install --no-cache-dir --constraint /constraints.txt --extra-index-url "${index}" "torch==${TORCH}" \
    && pip install --no-cache-dir --constraint /constraints.txt "$(echo /dist/*.whl)[${EXTRAS}]"
RUN useradd --create-home --uid 1000 signllava && mkdir /work && chown signllava /work
USER 1000
WORKDIR /work
ENTRYPOINT ["signllava"]
