//go:build !(linux || darwin || freebsd || openbsd || dragonfly) || 386 || arm || mips || mipsle

package poll

// Bytes and times are counted in ints, which are too small with 32 bits; sockets, limits
// and signals are Unix's. A build for anything else ends here, in the compiler's words.
var _ = madang_needs_a_64_bit_processor_and_Linux_macOS_FreeBSD_or_OpenBSD
