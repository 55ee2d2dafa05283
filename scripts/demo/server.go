package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"strconv"
)

// result is what the servers answer: small, and possible to check.
type result struct {
	Server string `json:"server"`
	N      int64  `json:"n"`
	Square int64  `json:"square"`
}

// serve runs one of the three small HTTP servers. It knows nothing of pools.
func serve(name, addr string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /square", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.FormValue("n"), 10, 32)
		if err != nil {
			http.Error(w, "n must be a number", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(result{name, n, n * n}); err != nil {
			log.Print(err)
		}
	})
	mux.HandleFunc("GET /healthy", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "fine") })
	return http.ListenAndServe(addr, mux)
}
