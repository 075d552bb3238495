"""TensorRT and TensorRT-RTX: a built engine on the GPU it was built for."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from stylize.runtime.artifact import Artifact
from stylize.runtime.contract import NOISE_INPUT, STYLE_WEIGHTS_INPUT, ModelContract, Precision
from stylize.runtime.cuda import CudaDevice
from stylize.runtime.cuda_graph import RepeatedPass
from stylize.runtime.device import DeviceTensor, Stream
from stylize.runtime.device_inputs import DeviceInputs
from stylize.runtime.engine_cache import fitting_engine
from stylize.runtime.errors import ArtifactError, BackendError
from stylize.runtime.extra_inputs import NO_EXTRAS, Extras
from stylize.runtime.plan import Builder
from stylize.runtime.runner import Runner
from stylize.runtime.tensorrt_module import TITLES, collecting_logger, import_tensorrt

__all__ = ["TensorRTRunner"]

logger = logging.getLogger(__name__)


class TensorRTRunner(Runner[DeviceTensor]):
    """Runs an engine on one stream; every shape and pair of addresses is recorded as a CUDA graph once.

    TensorRT-RTX records graphs itself, so it is only told to.
    """

    def __init__(self, artifact: Artifact, *, device: CudaDevice, cuda_stream: Stream) -> None:
        """Remember what to load.

        Args:
            artifact: a plan or a bare engine.
            device: where to run; stays the caller's.
            cuda_stream: the one that `enqueue` will name.

        Raises:
            ArtifactError: the file is neither.
        """
        super().__init__(artifact)
        if artifact.plan is None and not artifact.is_bare_engine:
            raise ArtifactError(
                artifact.path,
                f"holds no engine: first `stylize-export {artifact.name} --trt fp16 -o {artifact.name}.plan`",
            )
        self._device, self._stream = device, cuda_stream
        self._extras = DeviceInputs(device, cuda_stream=cuda_stream)
        self._contract = artifact.contract
        self._trt: Any = None
        self._logger: Any = None
        self._trt_runtime: Any = None
        self._builder: Builder = "tensorrt"
        self._engine: Any = None
        self._context: Any = None
        self.repeated = RepeatedPass(device, cuda_stream=cuda_stream, name=artifact.name)

    @property
    def contract(self) -> ModelContract:
        """What the model promises; an engine of one shape has one size."""
        return self._contract

    @property
    def description(self) -> str:
        """For example `TensorRT 10.13.3.9, NVIDIA H200, fp16, CUDA graph`."""
        version = self._trt.__version__ if self._trt is not None else "(not loaded)"
        plan = self.artifact.plan
        precision = plan.header.precision if plan is not None else self.contract.precision
        graph = ", CUDA graph" if self.repeated.is_recorded or self._builder == "tensorrt_rtx" else ""
        return f"{TITLES[self._builder]} {version}, {self._device.gpu.name}, {precision}{graph}"

    def activate(self) -> None:
        """Load the engine, built anew where it does not fit this machine; see `Runner.activate`."""
        with self._device.current():
            engine, self._builder = fitting_engine(self.artifact, self._device.gpu)
            self.repeated.can_record = self._builder == "tensorrt"
            self._trt = trt = import_tensorrt(self._builder)
            self._logger = collecting_logger(trt)
            self._trt_runtime = trt_runtime = trt.Runtime(self._logger)  # must outlive what it has made
            # An engine for later versions brings TensorRT's lean runtime along, code that is loaded into this process.
            plan = self.artifact.plan
            trt_runtime.engine_host_code_allowed = plan is not None and plan.header.is_version_compatible
            self._engine = trt_runtime.deserialize_cuda_engine(engine)
            if self._engine is None:
                raise ArtifactError(self.artifact.path, f"the engine inside cannot be loaded: {self._reason()}")
            self._contract = self._engine_contract()
            self._context = self._open_context()
            if self._context is None:
                free, total = self._device.memory_bytes()
                raise BackendError(
                    f"{TITLES[self._builder]} cannot start the engine: {self._reason()} ({free / 1e6:.0f} of "
                    f"{total / 1e6:.0f} MB are free; build with a smaller --max, or free memory of other programs)"
                )

    def enqueue(
        self, source: DeviceTensor, *, target: DeviceTensor, cuda_stream: int | None, extras: Extras = NO_EXTRAS
    ) -> None:
        """Queue one pass; see `Runner.enqueue`.

        Raises:
            BackendError: a shape the engine was not built for, or the GPU refused.
        """
        assert cuda_stream == self._stream.handle, "the stream is chosen when the runner is made"
        inputs = {self.contract.input_name: source, **self._extras.show(extras)}
        self.repeated.enqueue((*inputs.values(), target), bind=lambda: self._bind(inputs, target), work=self._execute)

    def close(self) -> None:
        """Free the engine."""
        with self._device.current():
            self.repeated.forget()
            self._context = self._engine = self._trt_runtime = None
            self._extras.close()

    def _open_context(self) -> Any:  # noqa: ANN401 - no stubs
        if self._builder == "tensorrt":
            return self._engine.create_execution_context()
        runtime_config = self._engine.create_runtime_config()
        runtime_config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return self._engine.create_execution_context(runtime_config)

    def _engine_contract(self) -> ModelContract:
        """The contract, checked against the tensors; of a bare engine what those and its name say."""
        trt, engine = self._trt, self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT]
        contract = self.artifact.contract
        if self.artifact.is_bare_engine:
            try:
                contract = ModelContract.from_json(engine.name)
            except ValueError:
                logger.warning(
                    "%s: a bare engine without a contract: read as RGB in %s..%s",
                    self.artifact.path,
                    *contract.value_range,
                )
        extras = {STYLE_WEIGHTS_INPUT} if contract.style_names else set()
        extras |= {NOISE_INPUT} if contract.takes_noise else set()
        pictures = [name for name in inputs if name not in extras]
        if len(pictures) != 1 or len(outputs) != 1 or not extras <= {*inputs}:
            wanted = ", ".join(("one picture", *sorted(extras)))
            raise ArtifactError(
                self.artifact.path, f"has inputs {inputs} and outputs {outputs}; {wanted} in, one out was expected"
            )
        types: dict[Any, Precision] = {trt.DataType.FLOAT: "fp32", trt.DataType.HALF: "fp16"}
        found = [types.get(engine.get_tensor_dtype(name)) for name in (pictures[0], outputs[0])]
        if found[0] is None or found[0] != found[1]:
            raise ArtifactError(self.artifact.path, "its input and output are not both float16 or both float32")
        shape = tuple(engine.get_tensor_shape(pictures[0]))
        if -1 in shape:
            low, _, high = (tuple(limit) for limit in engine.get_tensor_profile_shape(pictures[0], 0))
            shape = low if low == high else ()
        fixed = (shape[3], shape[2]) if shape else contract.fixed_size
        return dataclasses.replace(
            contract, input_name=pictures[0], output_name=outputs[0], precision=found[0], fixed_size=fixed
        )

    def _bind(self, inputs: Mapping[str, DeviceTensor], target: DeviceTensor) -> None:
        """Set shapes and addresses of everything."""
        context, contract = self._context, self.contract
        source = inputs[contract.input_name]
        for name, tensor in inputs.items():
            if context.set_input_shape(name, tensor.shape):
                continue
            if name != contract.input_name:
                raise BackendError(f"{self.artifact.path}: the engine does not take {name} of shape {tensor.shape}")
            low, _, high = (tuple(shape) for shape in self._engine.get_tensor_profile_shape(name, 0))
            raise BackendError(
                f"{self.artifact.path}: the engine takes {low[3]}x{low[2]} to {high[3]}x{high[2]} pixels, this needs "
                f"{source.shape[3]}x{source.shape[2]}: build it with other --min and --max"
            )
        shape = tuple(context.get_tensor_shape(contract.output_name))
        if shape != target.shape:
            raise BackendError(f"{self.artifact.path}: makes {shape} of {source.shape}, expected {target.shape}")
        for name, tensor in (*inputs.items(), (contract.output_name, target)):
            context.set_tensor_address(name, tensor.address)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise BackendError(f"{TITLES[self._builder]} failed: {self._reason()}")

    def _reason(self) -> str:
        errors: list[str] = self._logger.errors
        return errors[-1] if errors else "it gives no reason"
