import java.util.HashMap;
import java.util.List;
import java.util.Map;
import javax.security.auth.callback.Callback;
import javax.security.auth.login.AppConfigurationEntry;
import javax.security.auth.login.AppConfigurationEntry.LoginModuleControlFlag;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.config.AbstractConfig;
import org.apache.kafka.common.config.internals.BrokerSecurityConfigs;
import org.apache.kafka.common.security.JaasContext;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerToken;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerTokenCallback;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallback;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler;

/**
 * SASL/OAUTHBEARER of Kafka: the login of a client and the validator of a broker, configured by the properties of the
 * documentation. The callbacks are those of a connection; there is no broker here.
 */
final class Kafka {
    private static final String MECHANISM = "OAUTHBEARER";
    private static final String MODULE = OAuthBearerLoginModule.class.getName();

    private final Report report;
    private final String issuer;

    Kafka(Report report) {
        this.report = report;
        issuer = report.text("issuer");
    }

    void run() {
        report.chapter("Kafka, secrets", this::secrets);
        report.chapter("Kafka, assertions", this::assertions);
        report.chapter("Kafka, validation", this::validation);
    }

    private void secrets() throws Exception {
        String secret = report.text("kafkaSecret");
        OAuthBearerToken token = login(bySecret("kafka", secret));
        report.same(token.principalName(), "kafka", "Kafka, principal");
        report.same(token.scope().toString(), "[api:read]", "Kafka, scope");
        Map<String, Object> asked = bySecret("kafka", secret);
        asked.put("sasl.oauthbearer.scope", "api:write");
        report.same(login(asked).scope().toString(), "[api:write]", "Kafka, another scope");
        // As before Kafka 4.1, with the credentials in the JAAS configuration.
        String options = " clientId=\"kafka\" clientSecret=\"" + secret + "\" scope=\"api:write\"";
        report.same(login(client(options)).scope().toString(), "[api:write]", "Kafka, JAAS options");
        refused(bySecret("kafka", "wrong-and-long-enough"), "invalid_client", "Kafka, a wrong secret");
        asked.put("sasl.oauthbearer.scope", "api:admin");
        refused(asked, "invalid_scope", "Kafka, a scope that is not the client's");
    }

    private void assertions() throws Exception {
        for (String alg : List.of("RS256", "ES256")) {
            report.same(login(byAssertion(alg, issuer)).principalName(), "kafka-" + alg, "Kafka, " + alg);
            refused(byAssertion(alg, report.text("other")), "invalid_client", "Kafka, " + alg + " for another audience");
            Map<String, Object> unnamed = byAssertion(alg, issuer);
            unnamed.remove("sasl.oauthbearer.assertion.claim.jti.include");
            refused(unnamed, "invalid_client", "Kafka, " + alg + " without jti");
        }
    }

    private void validation() throws Exception {
        String api = report.text("api");
        String token = login(bySecret("kafka", report.text("kafkaSecret"))).value();
        String brief = login(bySecret("kafka-brief", report.text("kafkaBriefSecret"))).value();
        OAuthBearerValidatorCallback told = validated(token, api, issuer);
        report.same(told.errorStatus(), null, "Kafka, a valid token");
        report.same(told.token().principalName(), "kafka", "Kafka, the principal at the broker");
        report.same(told.token().scope().toString(), "[api:read]", "Kafka, the scope at the broker");
        report.same(validated(token, report.text("other"), issuer).errorStatus(), "invalid_token", "Kafka, another audience");
        report.same(validated(token, api, issuer + "/").errorStatus(), "invalid_token", "Kafka, another issuer");
        int signature = token.lastIndexOf('.') + 1;
        char other = token.charAt(signature) == 'A' ? 'B' : 'A';
        String altered = token.substring(0, signature) + other + token.substring(signature + 1);
        report.same(validated(altered, api, issuer).errorStatus(), "invalid_token", "Kafka, an altered token");
        Thread.sleep(1100);
        report.same(validated(brief, api, issuer).errorStatus(), "invalid_token", "Kafka, an expired token");
        report.same(validated(token, api, issuer).errorStatus(), null, "Kafka, the valid token after that");
    }

    private Map<String, Object> client(String options) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", "127.0.0.1:9");
        settings.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        settings.put("value.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        settings.put("security.protocol", "SASL_SSL");
        settings.put("sasl.mechanism", MECHANISM);
        settings.put("sasl.jaas.config", MODULE + " required" + options + ";");
        settings.put("sasl.login.callback.handler.class", OAuthBearerLoginCallbackHandler.class.getName());
        settings.put("sasl.oauthbearer.token.endpoint.url", issuer + "/token");
        return settings;
    }

    private Map<String, Object> bySecret(String id, String secret) {
        Map<String, Object> settings = client("");
        settings.put("sasl.oauthbearer.client.credentials.client.id", id);
        settings.put("sasl.oauthbearer.client.credentials.client.secret", secret);
        settings.put("sasl.oauthbearer.scope", "api:read");
        return settings;
    }

    private Map<String, Object> byAssertion(String alg, String audience) {
        Map<String, Object> settings = client("");
        settings.put("sasl.oauthbearer.client.credentials.client.id", "kafka-" + alg);
        settings.put("sasl.oauthbearer.assertion.algorithm", alg);
        settings.put("sasl.oauthbearer.assertion.private.key.file", report.world.required("kafkaKeys").required(alg).textValue());
        settings.put("sasl.oauthbearer.assertion.claim.iss", "kafka-" + alg);
        settings.put("sasl.oauthbearer.assertion.claim.sub", "kafka-" + alg);
        settings.put("sasl.oauthbearer.assertion.claim.aud", audience);
        settings.put("sasl.oauthbearer.assertion.claim.jti.include", "true");
        settings.put("sasl.oauthbearer.assertion.claim.exp.seconds", "60");
        return settings;
    }

    /** Logs in as a producer does before it connects. */
    private OAuthBearerToken login(Map<String, Object> settings) throws Exception {
        Map<String, ?> values = new ProducerConfig(settings).values();
        OAuthBearerTokenCallback callback = new OAuthBearerTokenCallback();
        OAuthBearerLoginCallbackHandler handler = new OAuthBearerLoginCallbackHandler();
        try {
            handler.configure(values, MECHANISM, JaasContext.loadClientContext(values).configurationEntries());
            handler.handle(new Callback[] {callback});
        } finally {
            handler.close();
        }
        if (callback.token() == null) {
            throw new IllegalStateException(callback.errorCode() + " " + callback.errorDescription());
        }
        report.check(true, "a token");
        return callback.token();
    }

    private void refused(Map<String, Object> settings, String error, String what) {
        report.refused(() -> login(settings), error, what);
    }

    /** Validates a token as a broker does when a client connects. */
    private OAuthBearerValidatorCallback validated(String token, String audience, String expectedIssuer) throws Exception {
        Map<String, ?> values = new AbstractConfig(BrokerSecurityConfigs.CONFIG_DEF, Map.of(
            "sasl.oauthbearer.jwks.endpoint.url", issuer + "/jwks",
            "sasl.oauthbearer.expected.audience", audience,
            "sasl.oauthbearer.expected.issuer", expectedIssuer,
            "sasl.oauthbearer.clock.skew.seconds", "0")).values();
        OAuthBearerValidatorCallback callback = new OAuthBearerValidatorCallback(token);
        OAuthBearerValidatorCallbackHandler handler = new OAuthBearerValidatorCallbackHandler();
        try {
            handler.configure(values, MECHANISM, List.of(new AppConfigurationEntry(MODULE, LoginModuleControlFlag.REQUIRED, Map.of())));
            handler.handle(new Callback[] {callback});
        } finally {
            handler.close();
        }
        return callback;
    }
}
