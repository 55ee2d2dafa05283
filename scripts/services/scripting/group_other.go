//go:build !unix

package scripting

import "os/exec"

func ownGroup(*exec.Cmd) {}

func killGroup(*exec.Cmd) error { return nil }
