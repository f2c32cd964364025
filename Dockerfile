# Build: docker build -t ssp .          (--build-arg TORCH_INDEX=<PyTorch's index of CPU builds> for a small image)
# Run:   docker run --rm -p 127.0.0.1:50051:50051 ssp
#        docker run --rm -p 127.0.0.1:50051:50051 -v "$PWD/runs:/models:ro" ssp --models /models/mine --host 0.0.0.0 --insecure
FROM python:3.12-slim AS build
ARG TORCH_INDEX=
WORKDIR /src
RUN python -m venv /opt/ssp
ENV PATH=/opt/ssp/bin:$PATH
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--index-url $TORCH_INDEX} torch
COPY . .
RUN pip install --no-cache-dir -c constraints.txt '.[server,cli]'

FROM python:3.12-slim
# g++ compiles the recurrences for the processor at hand, once; without it they run slower.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 ssp
COPY --from=build /opt/ssp /opt/ssp
ENV PATH=/opt/ssp/bin:$PATH SSP_CACHE=/home/ssp/.cache PYTHONUNBUFFERED=1
USER ssp
WORKDIR /home/ssp
EXPOSE 50051
HEALTHCHECK --start-period=30s --interval=10s --timeout=5s CMD ["ssp", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["ssp-server", "serve", "--log-format", "json"]
# Within the container every interface is listened on; what reaches it is what `docker run -p` publishes.
CMD ["--host", "0.0.0.0", "--insecure"]
