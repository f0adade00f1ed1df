# An image that runs the project's two commands.
#
#   docker build -t scratchgrid .
#   docker run --rm scratchgrid                  # make run: train one network
#   docker run --rm scratchgrid make test        # pass the tests
#   docker run --rm -v "$PWD/outputs:/scratchgrid/outputs" scratchgrid make run ARGS="model=relu2"

FROM python:3.12-slim

# make runs the commands; git records the commit of a run, if the folder of a repository is mounted.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /scratchgrid
COPY . .

# Install once, in the image, what both commands need.
ENV PIP_NO_CACHE_DIR=1
RUN make .venv/.dev

CMD ["make", "run"]
