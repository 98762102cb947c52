package envelope

import (
	"runtime"

	"golang.org/x/sys/cpu"
)

// Favoured returns the suite for extended nonces that this processor is fastest
// with: [XAES256GCM] where it has instructions for AES and for the multiplication of
// GCM, or else [XChaCha20Poly1305]. Counted nonces follow the same rule, but there is
// no other suite for them.
func Favoured() Suite {
	if hasAES() {
		return XAES256GCM
	}
	return XChaCha20Poly1305
}

// hasAES follows what the standard library asks for before it takes the fast way.
func hasAES() bool {
	switch runtime.GOARCH {
	case "amd64", "386":
		return cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ && cpu.X86.HasSSE41 && cpu.X86.HasSSSE3
	case "arm64":
		return runtime.GOOS == "darwin" || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL
	case "s390x":
		return cpu.S390X.HasAES && cpu.S390X.HasAESGCM
	case "ppc64", "ppc64le":
		return true
	}
	return false
}
