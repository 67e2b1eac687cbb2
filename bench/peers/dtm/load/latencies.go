package main

import (
	"math"
	"slices"
	"time"
)

// In milliseconds.
type quantiles struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// By nearest rank: each is a value that was measured. All zero when nothing was.
func quantilesOf(latencies []time.Duration) quantiles {
	slices.Sort(latencies)
	at := func(share float64) float64 {
		if len(latencies) == 0 {
			return 0
		}
		rank := int(math.Ceil(share * float64(len(latencies))))
		return float64(latencies[max(0, rank-1)].Microseconds()) / 1000
	}
	return quantiles{P50: at(0.5), P90: at(0.9), P99: at(0.99), Max: at(1)}
}
