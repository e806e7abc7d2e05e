# The app in a container; a Docker Space uses this same file. Runs as user 1000 on port 7860.
# It listens to all addresses, so the app takes whoever reaches it for a stranger: no folders of the
# container, no login of its owner's, limits (docs/serving.md). On a machine of your own:
#   docker run -p 127.0.0.1:7860:7860 -e MORPHING_PUBLIC=0 ...
FROM python:3.11-slim

# g++ for merging's compiled kernels (without it they run uncompiled); bubblewrap for benchmarks that
# run code, which refuse where the container's host allows no user namespaces.
RUN apt-get update && apt-get install -y --no-install-recommends bubblewrap g++ \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 user
USER user
WORKDIR /home/user/app
ENV PATH=/home/user/app/.venv/bin:$PATH \
    GRADIO_ANALYTICS_ENABLED=False \
    GRADIO_SERVER_NAME=0.0.0.0 \
    MORPHING_RUNS=/home/user/runs

COPY --chown=user requirements.lock pyproject.toml README.md LICENSE ./
RUN python -m venv .venv \
    && pip install --no-cache-dir --requirement requirements.lock
COPY --chown=user . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable .

EXPOSE 7860
CMD ["python", "app.py"]
