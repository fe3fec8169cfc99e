package redisstore

import "strconv"

// slots is how many hash slots a Redis Cluster has.
const slots = 16384

// partitionTags returns a short hash tag for each of n partitions. Partition i's
// tag hashes into the i-th of n equal ranges of slots, so that partitions spread
// evenly over nodes that hold ranges (the tags "0", "1", … would not). The result
// is fixed for ever: keys are made of it.
func partitionTags(n int) []string {
	tags := make([]string, n)
	for left, candidate := n, 0; left > 0; candidate++ {
		tag := strconv.FormatInt(int64(candidate), 36)
		// The inverse of "range i starts at i*slots/n", rounded as that rounds.
		slot := int(crc16(tag)) % slots
		i := ((slot+1)*n - 1) / slots
		if tags[i] == "" {
			tags[i] = tag
			left--
		}
	}
	return tags
}

// crc16 is CRC-16/XMODEM, by which Redis Cluster maps keys to slots.
func crc16(s string) uint16 {
	var crc uint16
	for i := 0; i < len(s); i++ {
		crc ^= uint16(s[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}
