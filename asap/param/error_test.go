package param_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"rserpool/asap/param"
	pt "rserpool/asap/param/paramtest"
)

func operationError(b []byte, limits param.Limits) (param.OperationError, error) {
	d := param.Decoding{Limits: limits}
	r := d.NewReader(b)
	return r.OperationError()
}

func TestPAR_3_12_01_Causes(t *testing.T) {
	in := pt.Error()
	b := encode(t, func(w *param.Writer) { w.OperationError(in) })
	got, err := operationError(b, param.Limits{})
	if err != nil || !reflect.DeepEqual(got, in) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, in)
	}
	// A cause of five octets: its length excludes its padding, the length of
	// the parameter the padding at the end.
	odd := param.OperationError{{Code: 1, Data: []byte{0xc0, 0, 0, 5, 9}}, {Code: 1, Data: []byte{0xc0, 0, 0, 5, 8}}}
	want := []byte{
		0, 0x0c, 0, 25,
		0, 1, 0, 9, 0xc0, 0, 0, 5, 9, 0, 0, 0,
		0, 1, 0, 9, 0xc0, 0, 0, 5, 8, 0, 0, 0,
	}
	if got := encode(t, func(w *param.Writer) { w.OperationError(odd) }); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	for name, value := range map[string][]byte{
		"no cause": nil, "short cause": {0, 1, 0, 3}, "long cause": {0, 1, 0, 9, 1, 2, 3, 4}, "no length": {0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := operationError(pt.TLV(param.TypeOperationError, value), param.Limits{})
			wantMalformed(t, err)
		})
	}
}

func TestPAR_3_12_02_UnknownCauseIsAnError(t *testing.T) {
	got, err := operationError(pt.TLV(param.TypeOperationError, []byte{0x77, 0x77, 0, 4}), param.Limits{})
	if err != nil || len(got) != 1 || got[0].Code != 0x7777 || !got.Has(0x7777) || got.Has(1) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestPAR_3_12_4_01_CauseData(t *testing.T) {
	tcp := pt.Transports()[2]
	e := pt.Elements()[0]
	for name, test := range map[string]struct {
		cause param.Cause
		data  []byte
	}{
		"0x5": {
			param.PolicyCause(param.CauseInconsistentPolicy, param.Policy{Type: param.LeastUsed}),
			pt.TLV(param.TypePolicy, pt.U32(0x40000001, 0)),
		},
		"0x7": {
			param.TransportCause(param.CauseInconsistentTransport, tcp),
			pt.TLV(param.TypeTCPTransport, pt.U16(80, 0), address6),
		},
		"0x3 odd": {
			param.PolicyCause(param.CauseInvalidValues, param.Policy{Type: 0x80000001, Data: "odd"}),
			pt.TLV(param.TypePolicy, append(pt.U32(0x80000001), "odd"...)),
		},
		"0x3 element": {
			param.ElementCause(param.CauseInvalidValues, &e),
			pt.TLV(param.TypePoolElement, pt.U32(uint32(e.ID), uint32(e.Home), 300), sctp, roundRobin,
				pt.SCTP(3863, 0, address4, address6)),
		},
		"0x9":               {param.NewCause(param.CauseUnknownPoolHandle), nil},
		"nothing to encode": {param.PolicyCause(param.CauseInvalidValues, param.Policy{}), nil},
	} {
		if !bytes.Equal(test.cause.Data, test.data) {
			t.Errorf("%s: got %x, want %x", name, test.cause.Data, test.data)
		}
	}
}

// Errors that would make the message longer than it can be are cut.
func TestAMB_75_QuotesAreCut(t *testing.T) {
	long := bytes.Repeat([]byte{0xee}, 65535)
	for _, test := range []struct {
		name  string
		error param.OperationError
		want  []int // data octets of each cause read back
	}{
		{"one", param.OperationError{{Code: 1, Data: long}}, []int{65535 - 4 - 4 - 4}},
		{"two", param.OperationError{{Code: 1, Data: long}, {Code: 3, Data: long}}, []int{65516, 3}},
		{"short first", param.OperationError{{Code: 1, Data: long[:10]}, {Code: 3, Data: long}}, []int{10, 65535 - 4 - 4 - 4 - 12 - 4}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := param.NewMessage(nil, 1, 0)
			w.OperationError(test.error)
			if w.Len() > param.MaxLength {
				t.Fatalf("message of %d octets", w.Len())
			}
			b, err := w.Finish()
			if err != nil {
				t.Fatal(err)
			}
			env, err := param.Open(b)
			if err != nil {
				t.Fatal(err)
			}
			got, err := operationError(env.Value, param.Limits{})
			if err != nil || len(got) != len(test.want) {
				t.Fatalf("%d causes, %v", len(got), err)
			}
			for i, c := range got {
				if len(c.Data) != test.want[i] || c.Code != test.error[i].Code {
					t.Errorf("cause %d: code %v, %d octets, want %d", i, c.Code, len(c.Data), test.want[i])
				}
			}
		})
	}
}

func TestNames(t *testing.T) {
	for want, got := range map[string]string{
		"Pool Handle":                     param.TypePoolHandle.String(),
		"Handle Resolution Option":        param.TypeHandleResolutionOption.String(),
		"parameter 0x0011":                param.Type(0x11).String(),
		"Least Used with Degradation":     param.LeastUsedDegradation.String(),
		"policy 0xb0002004":               param.PolicyType(0xb0002004).String(),
		"Unknown Pool Handle":             param.CauseUnknownPoolHandle.String(),
		"cause 0x7777":                    param.CauseCode(0x7777).String(),
		"malformed":                       param.Malformed.String(),
		"unknown parameter":               param.UnknownParameter.String(),
		"unknown message":                 param.UnknownMessage.String(),
		"limit exceeded":                  param.LimitExceeded.String(),
		"kind 9":                          param.Kind(9).String(),
		"0x0000002a":                      param.PEID(42).String(),
		"Unspecified Error, cause 0x0011": param.OperationError{{Code: 0}, {Code: 0x11}}.String(),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The codes in RFC 5354, table 2, are not in the order of its sections.
func TestAMB_62_CauseCodes(t *testing.T) {
	if param.CauseUnknownPoolHandle != 0x9 || param.CauseSecurity != 0xa {
		t.Error(param.CauseUnknownPoolHandle, param.CauseSecurity)
	}
}

func TestAMB_60_SixteenParameterTypes(t *testing.T) {
	for typ := param.Type(0); typ <= 0x20; typ++ {
		named := !strings.HasPrefix(typ.String(), "parameter")
		if named != (typ >= 1 && typ <= 16) {
			t.Errorf("type 0x%x: %s", uint16(typ), typ)
		}
	}
}

// A refusal tells which policy is meant, of those that quote one.
func TestCausesTellThePolicy(t *testing.T) {
	wrr, strange := param.Policy{Type: param.WeightedRoundRobin, Weight: 1}, param.Policy{Type: 0x80009999, Data: "x"}
	address := param.Transport{Type: param.TypeOpaqueTransport, Opaque: []byte("abcd")}
	quoted := param.PolicyCause(param.CauseInconsistentPolicy, wrr)
	for want, causes := range map[string]param.OperationError{
		"Inconsistent Pooling Policy (the pool's is Weighted Round Robin)":         {quoted},
		"Invalid Values (policy 0x80009999)":                                       {param.PolicyCause(param.CauseInvalidValues, strange)},
		"Inconsistent Transport Type, Invalid Values, Inconsistent Pooling Policy": {param.TransportCause(param.CauseInconsistentTransport, address), param.TransportCause(param.CauseInvalidValues, address), {Code: param.CauseInconsistentPolicy, Data: quoted.Data[:5]}},
		"Lack of Resources": {{Code: param.CauseLackOfResources, Data: quoted.Data}},
	} {
		if got := causes.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
