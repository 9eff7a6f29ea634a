.PHONY: demo test check

demo:
	scripts/setup
	cargo run --locked -- demo

test:
	scripts/setup test
	scripts/kafka fetch
	cargo test --workspace --locked

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo run --locked -- check
