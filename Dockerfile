# The node in one image, for every role. Built by the Makefile's own steps.
#
#   docker build -t crlm-node .
#
# The network runs on the CPU unless the container is given a GPU and the build of torch knows CUDA.
#   INDEX_URL        package index for everything; empty: pip's default
#   TORCH_INDEX_URL  further index, for torch: name the one of torch's CPU wheels for a small image
#   CUDA             "yes" demands a build of torch with CUDA, and ends the build where it came without
#   EXTRAS           extras of pyproject.toml, such as cpu (OpenVINO)
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/crlm-node
ARG INDEX_URL=
ARG TORCH_INDEX_URL=
ARG EXTRAS=
ENV PIP_NO_CACHE_DIR=1
# dependencies first: they change less often than the source, and their layer is the large one
COPY pyproject.toml constraints.txt Makefile README.md LICENSE NOTICE ./
RUN mkdir node model simulator \
    && make install INDEX_URL="${INDEX_URL}" EXTRA_INDEX_URL="${TORCH_INDEX_URL}" EXTRAS="${EXTRAS}"
COPY node node
COPY model model
COPY simulator simulator
COPY dicom_config dicom_config
# once more, now with the source there: the packages are found, nothing else is installed
RUN touch pyproject.toml \
    && make install INDEX_URL="${INDEX_URL}" EXTRA_INDEX_URL="${TORCH_INDEX_URL}" EXTRAS="${EXTRAS}" \
    && .venv/bin/python -m compileall -q node model simulator \
    && .venv/bin/crlm-node --help >/dev/null
ARG CUDA=no
RUN .venv/bin/python -c "import sys, torch; print('torch', torch.__version__, 'CUDA', torch.version.cuda); \
    sys.exit('${CUDA}' == 'yes' and torch.version.cuda is None and 'CUDA=yes, but this index gave a build without')"


FROM ${PYTHON_IMAGE}
# a number, so that Kubernetes can see that it is not root
RUN groupadd --gid 10001 crlm \
    && useradd --uid 10001 --gid crlm --home-dir /var/lib/crlm-node --create-home --shell /usr/sbin/nologin crlm
COPY --from=build /opt/crlm-node /opt/crlm-node
# what ships lies in the volumes' folders: an empty named volume there begins with it
RUN cp -r /opt/crlm-node/dicom_config /etc/crlm-node \
    && cp -r /opt/crlm-node/model/bundles /var/lib/crlm-node/bundles \
    && mkdir /var/lib/crlm-node/spool /var/lib/crlm-node/results \
    && chown -R 10001:10001 /var/lib/crlm-node \
    && chmod 700 /var/lib/crlm-node/spool /var/lib/crlm-node/results
ENV PATH=/opt/crlm-node/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CRLM_NODE_CONFIG=/etc/crlm-node \
    CRLM_NODE_SPOOL__PATH=/var/lib/crlm-node/spool \
    CRLM_NODE_BUNDLES=/var/lib/crlm-node/bundles
WORKDIR /var/lib/crlm-node
USER 10001:10001
VOLUME ["/etc/crlm-node", "/var/lib/crlm-node/spool", "/var/lib/crlm-node/bundles", "/var/lib/crlm-node/results"]
EXPOSE 11112
STOPSIGNAL SIGTERM
ENTRYPOINT ["crlm-node"]
CMD ["serve"]
