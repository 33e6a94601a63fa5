# The server as a container, on amd64 and arm64, with a root that can't be written to:
#
#   docker build -t edgeclip .
#   docker run --read-only --tmpfs /tmp -v ./my-bundle:/bundle:ro -p 3003:3003 edgeclip /bundle --immich-name ViT-B-32__openai
FROM python:3.12-slim AS build
COPY . /source
RUN python -m venv /opt/edgeclip && /opt/edgeclip/bin/pip install --no-cache-dir --constraint /source/constraints.txt "/source[serve,heic,raw]"

FROM python:3.12-slim
RUN useradd --system --uid 10001 --create-home --home-dir /cache edgeclip
COPY --from=build /opt/edgeclip /opt/edgeclip
ENV PATH=/opt/edgeclip/bin:$PATH XDG_CACHE_HOME=/cache HF_HOME=/cache/huggingface PYTHONDONTWRITEBYTECODE=1
USER edgeclip
VOLUME /cache
EXPOSE 3003
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:3003/ping', timeout=4)"]
ENTRYPOINT ["edgeclip", "serve", "--host", "0.0.0.0", "--port", "3003", "--log-json"]
CMD ["builtin:tabletop"]
