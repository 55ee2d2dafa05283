package registrar

import (
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
)

// Refusals counts and logs those who were not let in to the ports of registrars,
// as they could not prove that they belong to the cluster.
type Refusals struct {
	log   logrus.FieldLogger
	count *prometheus.CounterVec

	mu      sync.Mutex
	notices map[string]*notice // by reason
}

// refusedRate is how many lines each reason gets per second: a member that was set up
// wrongly tries again several times a second, for as long as it runs.
const refusedRate = 0.1

// NewRefusals returns one that logs to log, no more than is bearable.
func NewRefusals(log logrus.FieldLogger) *Refusals {
	return &Refusals{log: log, notices: make(map[string]*notice), count: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rserpool_handshake_failures_total",
		Help: "TLS handshakes with those who dialled that failed, and ENRP connections over which a registrar spoke as another than its certificate is for.",
	}, []string{"reason"})}
}

// expiryGauge shows when the registrar's certificate ends.
func expiryGauge(expires func() time.Time) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rserpool_certificate_expiry_timestamp_seconds", Help: "When the registrar's certificate ends.",
	}, func() float64 { return float64(expires().Unix()) })
}

// Refused notes one. reason is a word of a small number. It may be called
// concurrently.
func (r *Refusals) Refused(remote netip.AddrPort, reason string, err error) {
	r.count.WithLabelValues(reason).Inc()
	r.mu.Lock()
	n := r.notices[reason]
	if n == nil {
		n = &notice{burst: 1, rate: refusedRate}
		r.notices[reason] = n
	}
	r.mu.Unlock()
	n.log(r.log.WithError(err).WithFields(logrus.Fields{"peer": remote.Addr().String(), "reason": reason}).Warn,
		"somebody was not let in to a port of registrars", time.Now())
}
