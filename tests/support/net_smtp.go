// A client of net/smtp.  It sends what the job on standard input says, and prints why if it fails.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/smtp"
	"os"
)

type job struct {
	Host, Port, Path          string
	Mode, Trusted             string
	Mechanism, User, Password string
	Domain, Sender            string
	Recipients                []string
	Content                   []byte
}

// login is AUTH LOGIN, which net/smtp lacks, as Go programs have it: the challenges have to
// be these.
type login struct{ user, password string }

func (l login) Start(*smtp.ServerInfo) (string, []byte, error) { return "LOGIN", nil, nil }

func (l login) Next(challenge []byte, more bool) ([]byte, error) {
	switch {
	case !more:
		return nil, nil
	case string(challenge) == "Username:":
		return []byte(l.user), nil
	case string(challenge) == "Password:":
		return []byte(l.password), nil
	}
	return nil, fmt.Errorf("unexpected challenge: %q", challenge)
}

func (j job) auth() smtp.Auth {
	switch j.Mechanism {
	case "PLAIN":
		return smtp.PlainAuth("", j.User, j.Password, j.Host)
	case "CRAM-MD5":
		return smtp.CRAMMD5Auth(j.User, j.Password)
	}
	return login{j.User, j.Password}
}

func (j job) dial(settings *tls.Config) (*smtp.Client, error) {
	network, address := "tcp", net.JoinHostPort(j.Host, j.Port)
	if j.Path != "" {
		network, address = "unix", j.Path
	}
	conn, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	if j.Mode == "implicit" {
		conn = tls.Client(conn, settings)
	}
	return smtp.NewClient(conn, j.Host)
}

func (j job) connect() (*smtp.Client, error) {
	settings := &tls.Config{ServerName: j.Host, RootCAs: x509.NewCertPool()}
	settings.RootCAs.AppendCertsFromPEM([]byte(j.Trusted))
	client, err := j.dial(settings)
	if err == nil {
		err = client.Hello(j.Domain)
	}
	if err == nil && j.Mode == "starttls" {
		err = client.StartTLS(settings)
	}
	return client, err
}

// send does what smtp.SendMail does, which cannot be told whom to trust.
func (j job) send() error {
	client, err := j.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	if j.Mechanism != "" {
		if err := client.Auth(j.auth()); err != nil {
			return err
		}
	}
	if err := client.Mail(j.Sender); err != nil {
		return err
	}
	for _, recipient := range j.Recipients {
		if err := client.Rcpt(recipient); err != nil {
			return err
		}
	}
	writer, err := client.Data()
	if err != nil {
		return err
	}
	if _, err := writer.Write(j.Content); err != nil {
		return err
	}
	if err := writer.Close(); err != nil {
		return err
	}
	return client.Quit()
}

func main() {
	var j job
	err := json.NewDecoder(os.Stdin).Decode(&j)
	if err == nil {
		err = j.send()
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
