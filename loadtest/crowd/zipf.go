package crowd

import "math"

// ZipfSizes returns the sizes of rooms as chats have them: the k-th largest room
// is 1/k^s as large as the largest, and none is smaller than two.
func ZipfSizes(rooms, largest int, s float64) []int {
	sizes := make([]int, rooms)
	for k := range sizes {
		sizes[k] = max(2, int(math.Round(float64(largest)/math.Pow(float64(k+1), s))))
	}
	return sizes
}
