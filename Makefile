.PHONY: demo test check bench

demo:
	scripts/setup
	cargo run --locked -- demo

test:
	scripts/setup test
	scripts/kafka fetch
	cargo test --workspace --locked; status=$$?; scripts/kafka stop .tools/kafka-test; exit $$status

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo run --locked -- check

bench:
	scripts/setup test
	scripts/bench
