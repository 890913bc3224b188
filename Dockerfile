# affinage serve, without torch: docker build -t affinage . && docker run -p 8000:8000 -v "$PWD/sentiment-int8:/models/sentiment:ro" affinage
FROM python:3.11-slim

COPY . /src
RUN pip install --no-cache-dir -c /src/constraints.txt '/src[serve]' && rm -rf /src && useradd --system serve

USER serve
WORKDIR /models
EXPOSE 8000
# One OpenMP thread a core that the container may use: docker run --cpus 2 -e OMP_NUM_THREADS=2 …; a token: -e AFFINAGE_TOKEN=…
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=2)"]
# Every folder under /models is served under its name. exec: SIGTERM reaches the server, which answers what it accepted.
CMD ["sh", "-c", "exec affinage serve /models/* --host 0.0.0.0 --port 8000"]
