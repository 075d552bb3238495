# stylize with TensorRT, PyCUDA and the CUDA libraries, for a host with an NVIDIA driver (580 or later, for CUDA 13) and
# its container toolkit:
#
#   docker build -t stylize .
#   docker run --rm --gpus all -v "$PWD:/work" stylize stylize-run starry-night in.mp4 out.mp4
#   docker run --rm --gpus all -v "$PWD:/work" stylize stylize-export starry-night --trt fp16 -o starry-night.plan
#
# It runs as user 1000; add --user "$(id -u):$(id -g)" where you are another one, and -v stylize-cache:/cache to keep engines
# and compiled kernels from run to run. TensorRT's own wheels come from NVIDIA's index, to which its package on PyPI leads.
# Not built or run on a machine with a GPU yet.
ARG CUDA=13.0.1
FROM nvidia/cuda:${CUDA}-devel-ubuntu24.04 AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/stylize
ENV PATH=/opt/stylize/bin:$PATH
# PyCUDA is linked with the toolkit's stub of the driver; the real one comes with the container toolkit. Nothing here draws
# random numbers by CURAND, whose library the image below does not have.
RUN echo "CUDA_ENABLE_CURAND = False" > /root/.aksetup-defaults.py \
    && LIBRARY_PATH=/usr/local/cuda/lib64/stubs pip install --no-cache-dir pycuda==2026.1
COPY . /src
# Exporting asks for the ONNX Runtime of CPUs, which is the same module: the one for GPUs is put over it.
RUN pip install --no-cache-dir -c /src/constraints.txt '/src[export,gpu,steady,trt]' \
    && pip uninstall -y onnxruntime \
    && pip install --no-cache-dir --force-reinstall --no-deps onnxruntime-gpu==1.31.1

# CUDA's libraries and cuDNN come with onnxruntime-gpu and TensorRT, by pip.
FROM nvidia/cuda:${CUDA}-base-ubuntu24.04
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/* \
    && mkdir -m 1777 /cache
COPY --from=build /opt/stylize /opt/stylize
# `video` brings NVDEC and NVENC into the container.
ENV PATH=/opt/stylize/bin:$PATH \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    STYLIZE_CACHE=/cache/stylize \
    CUDA_CACHE_PATH=/cache/kernels
USER 1000
WORKDIR /work
CMD ["stylize-run", "--help"]
