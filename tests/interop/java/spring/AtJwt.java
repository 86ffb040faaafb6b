import org.springframework.boot.autoconfigure.security.oauth2.resource.servlet.JwkSetUriJwtDecoderBuilderCustomizer;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.security.oauth2.core.OAuth2TokenValidator;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.security.oauth2.jwt.JwtTypeValidator;

/** The beans with which a resource server of Spring Boot 3.5 accepts tokens of typ at+jwt. */
@Configuration
class AtJwt {
    @Bean
    OAuth2TokenValidator<Jwt> type() {
        return new JwtTypeValidator("at+jwt");
    }

    /** Turns off the check for typ JWT that comes before the validators. */
    @Bean
    JwkSetUriJwtDecoderBuilderCustomizer anyType() {
        return builder -> builder.validateType(false);
    }
}
