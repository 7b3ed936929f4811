# The service's images. `api` has no TensorFlow and is also the relay and Flower; `worker` has TensorFlow for CPUs, `worker-gpu`
# for NVIDIA GPUs. docker-compose.yml says how they are run, and how their health is asked.

FROM python:3.12.13-slim-trixie AS python
ENV PATH=/opt/venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1

# Packages: constraints.txt pins all of them, also those that come along.
FROM python AS packages-api
WORKDIR /packages
RUN python -m venv /opt/venv
COPY constraints.txt requirements-base.txt requirements-tracing.txt ./
RUN pip install --no-cache-dir -r requirements-base.txt -r requirements-tracing.txt

FROM packages-api AS packages-worker
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt

FROM packages-api AS packages-worker-gpu
COPY requirements-gpu.txt ./
RUN pip install --no-cache-dir -r requirements-gpu.txt

# The code belongs to root, and runs as a user who cannot change it. /var/lib/inference is for what a part keeps: Flower's state,
# fetched models.
FROM python AS application
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin inference \
    && install -d -o inference -g inference /var/lib/inference /var/lib/inference/model-files
ENV PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY celeryconfig.py flowerconfig.py server.py ./
COPY api api
COPY configurations configurations
COPY inference inference
COPY models models
COPY tasks tasks
USER 10001

# Linked: a change of the code leaves the packages' layer, the large one, as it was.
FROM application AS worker-gpu
COPY --from=packages-worker-gpu --link /opt/venv /opt/venv
CMD ["celery", "-A", "tasks", "worker", "--without-gossip", "--without-mingle"]

FROM application AS worker
COPY --from=packages-worker --link /opt/venv /opt/venv
CMD ["celery", "-A", "tasks", "worker", "--without-gossip", "--without-mingle"]

FROM application AS api
COPY --from=packages-api --link /opt/venv /opt/venv
EXPOSE 30005
CMD ["python", "server.py", "api"]
