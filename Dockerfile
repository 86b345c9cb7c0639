# CPU only, small, not root: `docker run --rm -v "$PWD:/work" ehdnas run`
FROM python:3.11-slim
RUN useradd --create-home ehdnas && mkdir /work && chown ehdnas /work
COPY pyproject.toml constraints.txt README.md LICENSE /src/
COPY toolkit /src/toolkit
COPY search /src/search
COPY exporters /src/exporters
COPY profilers /src/profilers
COPY core /src/core
RUN python -m pip install --quiet --constraint /src/constraints.txt /src
USER ehdnas
WORKDIR /work
ENTRYPOINT ["ehdnas"]
