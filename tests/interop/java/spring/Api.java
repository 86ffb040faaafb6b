import static org.springframework.security.config.Customizer.withDefaults;

import java.security.Principal;
import java.time.Duration;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.oauth2.core.OAuth2TokenValidator;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.security.oauth2.jwt.JwtTimestampValidator;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

/** A resource server with one path for each scope. */
@Configuration
@EnableAutoConfiguration
@RestController
class Api {
    @GetMapping({"/read", "/write"})
    String subject(Principal principal) {
        return principal.getName();
    }

    @Bean
    SecurityFilterChain paths(HttpSecurity http) throws Exception {
        return http
            .authorizeHttpRequests(requests -> requests
                .requestMatchers("/write").hasAuthority("SCOPE_api:write")
                .anyRequest().hasAuthority("SCOPE_api:read"))
            .oauth2ResourceServer(server -> server.jwt(withDefaults()))
            .build();
    }

    /** The default allows a minute to clocks, longer than this program runs. */
    @Bean
    OAuth2TokenValidator<Jwt> noClockSkew() {
        return new JwtTimestampValidator(Duration.ZERO);
    }
}
