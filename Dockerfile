# stylize with TensorRT, PyCUDA and the CUDA libraries, for a host with an NVIDIA driver and its container toolkit:
#
#   docker build -t stylize .
#   docker run --rm --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility,video -v "$PWD:/work" stylize \
#       stylize-run starry-night in.mp4 out.mp4
#
# `video` brings NVDEC and NVENC into the container. Not built or run on a machine with a GPU yet.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/stylize
ENV PATH=/opt/stylize/bin:$PATH
COPY . /src
# PyCUDA is built against the toolkit's stub of the driver; the real one comes with the container toolkit.
RUN pip install --no-cache-dir -c /src/constraints.txt '/src[gpu,trt]' \
    && LIBRARY_PATH=/usr/local/cuda/lib64/stubs pip install --no-cache-dir pycuda

# CUDA's libraries and cuDNN come with onnxruntime-gpu and TensorRT, by pip.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/stylize /opt/stylize
ENV PATH=/opt/stylize/bin:$PATH
WORKDIR /work
CMD ["stylize-run", "--help"]
