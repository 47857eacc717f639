# Every target is one line or a script in scripts/.
.PHONY: demo test lint bench bench-peers train eval kernels install setup

demo:    # scripted camera over RTSP on loopback -> events beside the truth, demo.mp4
	@scripts/demo.sh

test:    # everything
	@scripts/test.sh

lint:    # format, clippy, licences, docs
	@scripts/lint.sh

bench:   # optimised; prints times
	@cargo bench --locked

bench-peers: # us and PyTorch, ONNX Runtime, OpenVINO in turns -> benches/RESULTS.md; ARGS="--quick" only tries it
	@scripts/bench_peers.sh $(ARGS)

train:   # the demo model from nothing, into target/train; hours
	@scripts/train.sh

eval:    # the demo model's figures; some minutes
	@scripts/eval.sh

kernels: # kernels/*.cu -> kernels/cubins, which the crate embeds; needs no CUDA and no GPU
	@scripts/kernels.sh

install: # the plugin where GStreamer finds it, xclipd on the PATH
	@scripts/install.sh

setup:   # system packages (apt); the other targets do it themselves
	@scripts/setup.sh
