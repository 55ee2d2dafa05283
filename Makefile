# Each target is one script, which can also be run alone.
.PHONY: all build test lint demo demo-session lab sim poolsim model bench ringbench failover sessions chaos fuzz requirements docs clean

all: build

build:        ; scripts/build.sh
test:         ; scripts/test.sh
lint:         ; scripts/lint.sh
demo:         ; scripts/demo.sh
demo-session: ; scripts/demo-session.sh
lab:          ; scripts/lab.sh
sim:          ; scripts/sim.sh
poolsim:      ; scripts/poolsim.sh
model:        ; scripts/model.sh
bench:        ; scripts/bench.sh
ringbench:    ; scripts/ringbench.sh
failover:     ; scripts/failover.sh
sessions:     ; scripts/sessions.sh
chaos:        ; scripts/chaos.sh
fuzz:         ; scripts/fuzz.sh
requirements: ; go run ./scripts/requirements -missing
docs:         ; scripts/docs.sh
clean:        ; rm -rf bin out
