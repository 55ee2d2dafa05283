# Each target is one script, which can also be run alone.
.PHONY: all build test lint demo lab sim poolsim model bench ringbench chaos fuzz requirements docs clean

all: build

build:        ; scripts/build.sh
test:         ; scripts/test.sh
lint:         ; scripts/lint.sh
demo:         ; scripts/demo.sh
lab:          ; scripts/lab.sh
sim:          ; scripts/sim.sh
poolsim:      ; scripts/poolsim.sh
model:        ; scripts/model.sh
bench:        ; scripts/bench.sh
ringbench:    ; scripts/ringbench.sh
chaos:        ; scripts/chaos.sh
fuzz:         ; scripts/fuzz.sh
requirements: ; go run ./scripts/requirements -missing
docs:         ; scripts/docs.sh
clean:        ; rm -rf bin out
