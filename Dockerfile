# docker build -t fgda .                                        # CPU
# docker build -t fgda-cuda \
#   --build-arg BASE=nvidia/cuda:12.6.3-runtime-ubuntu24.04 \
#   --build-arg TORCH_INDEX=https://pypi.org/simple .           # GPU
# docker run --rm -v "$PWD:/work" fgda adapt --preset mine.yaml
ARG BASE=ubuntu:24.04
FROM ${BASE}

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=encoders,export,mit,video
ENV DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/fgda/bin:$PATH

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/fgda

COPY constraints.txt pyproject.toml README.md LICENSE /src/
COPY fgda_cli /src/fgda_cli
COPY presets /src/presets

RUN pip install -c /src/constraints.txt --index-url "${TORCH_INDEX}" --extra-index-url https://pypi.org/simple torch torchvision \
    && pip install -c /src/constraints.txt "/src[${EXTRAS}]" \
    && fgda doctor > /dev/null

RUN useradd --create-home --uid 10001 fgda
USER 10001
WORKDIR /work
ENV FGDA_DATA=/work/data
ENTRYPOINT ["fgda"]
CMD ["--help"]
